/** Host name and environment variables as they were when the proxy was started. Core fills them in, in the isolates of shipped packages. */
export const surroundings = { hostname: "", environment: {} as Readonly<Record<string, string>> };
