import { escapeHtml } from "./answer.ts";
import type { Endpoint, Parameter } from "./endpoints.ts";

/** The page at `/`: each command with its parameters as a form. */
export function homePage(endpoints: readonly Endpoint[]): string {
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Envoy Admin</title>
<style>${STYLE}</style>
</head>
<body>
<h1>tsproxy admin</h1>
<table>
${endpoints
  .filter((endpoint) => endpoint.path !== "/")
  .map(row)
  .join("\n")}
</table>
</body>
</html>
`;
}

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid #ccc; padding: .6em .8em .6em 0; vertical-align: top; }
td:first-child { white-space: nowrap; font-family: ui-monospace, monospace; }
label { display: block; color: #555; }
input, select, button { font: inherit; margin-right: .5em; }
.post { color: #a40; }
`;

function row({ path, help, mutates, parameters = [] }: Endpoint): string {
  const method = mutates === true ? "post" : "get";
  const name =
    mutates === true ? `<span class="post">${path}</span>` : `<a href="${path}">${path}</a>`;
  const button = `<button>${mutates === true ? "POST" : "GET"}</button>`;
  const form =
    mutates === true || parameters.length > 0
      ? `<form action="${path}" method="${method}">${parameters.map(field).join("")}${button}</form>`
      : "";
  return `<tr><td>${name}</td><td>${escapeHtml(help)}${form}</td></tr>`;
}

function field({ name, help, choices }: Parameter): string {
  const label = escapeHtml(help);
  if (choices !== undefined) {
    const options = choices.map((choice) => `<option>${choice}</option>`).join("");
    return `<label><select name="${name}">${options}</select>${label}</label>`;
  }
  if (FLAGS.has(name)) return `<label><input type="checkbox" name="${name}">${label}</label>`;
  return `<label><input type="text" name="${name}" placeholder="${name}">${label}</label>`;
}

/** Parameters that need no value. */
const FLAGS = new Set([
  "usedonly",
  "invert_filter",
  "include_eds",
  "text_readouts",
  "graceful",
  "skip_exit",
  "inboundonly",
]);
