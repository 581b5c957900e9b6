import type { PackageInfo, RuntimeConfig } from "../protocol.ts";
import type { Node } from "./document.ts";

const LISTENERS = "static_resources.listeners";

/**
 * Of a config that has errors, the listeners and services that have none of their own: they can be set up, so that what packages
 * refuse of them is told together with those errors. Undefined: nothing can be, as it is the clusters that have errors, and any
 * listener may name them.
 */
export function soundPart(
  config: RuntimeConfig,
  errors: readonly { readonly path: string }[],
  origin: ReadonlyMap<object, Node>,
  packages: readonly PackageInfo[],
): RuntimeConfig | undefined {
  const hasErrors = (section: string) => errors.some(({ path }) => isIn(path, section));
  const mayConcernClusters = ({ path }: { readonly path: string }) =>
    path === "" ||
    isIn(path, "cluster_manager") ||
    (isIn(path, "static_resources") && !isIn(path, LISTENERS));
  if (errors.some(mayConcernClusters)) return undefined;
  const sectionOf = (service: string) => packages.find((p) => p.package === service)?.section;
  return {
    ...config,
    listeners: config.listeners.filter((listener) => {
      const at = origin.get(listener)?.place.path ?? LISTENERS;
      return !hasErrors(at);
    }),
    services: config.services.filter((service) => {
      const section = sectionOf(service.package);
      return section === undefined || section === "" || !hasErrors(section);
    }),
  };
}

/** True for the path of a section, and all paths inside it. */
function isIn(path: string, section: string): boolean {
  return path === section || path.startsWith(`${section}.`) || path.startsWith(`${section}[`);
}
