/** The machine around the proxy, for %HOSTNAME% and %ENVIRONMENT(X)%. Core fills it in once, in isolates of shipped packages. */
export const surroundings = { hostname: "", environment: {} as Readonly<Record<string, string>> };
