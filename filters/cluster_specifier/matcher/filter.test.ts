import { RequestHeaders, type SpecifierSubject } from "@tsproxy/sdk";
import { TestContext, withDefaults } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import matcher from "./filter.ts";

const to = (cluster: string) => ({
  action: {
    name: "cluster",
    typed_config: {
      "@type": "x/envoy.extensions.router.cluster_specifiers.matcher.v3.ClusterAction",
      cluster,
    },
  },
});

it("names the cluster that its tree comes to, and none where nothing matches", () => {
  const config = withDefaults(matcher.config, {
    cluster_matcher: {
      matcher_tree: {
        input: {
          name: "tenant",
          typed_config: {
            "@type": "x/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
            header_name: "x-tenant",
          },
        },
        exact_match_map: { map: { a: to("tenant_a"), b: to("tenant_b") } },
      },
    },
  });
  const specifier = new TestContext().setup(matcher, config);
  const clusterOf = (tenant: string) => {
    const request = new RequestHeaders();
    request.append("x-tenant", tenant);
    const address = { ip: "192.0.2.1", port: 1 };
    const info = {
      downstreamRemoteAddress: address,
      downstreamDirectAddress: address,
      downstreamLocalAddress: address,
    };
    const subject: SpecifierSubject = { request, info, random: 0 };
    return specifier.cluster(subject);
  };
  expect(["a", "b", "c"].map(clusterOf)).toEqual(["tenant_a", "tenant_b", undefined]);
});
