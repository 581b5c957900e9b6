// Loaded before the supervisor's modules: until the supervisor obeys SIGHUP and SIGUSR1 there is nothing to read or open again, but the
// first would end this process, and the second open Node's debugger. Tells the launcher, if it waits, that signals may be passed on.
for (const signal of ["SIGHUP", "SIGUSR1"]) process.on(signal, () => {});
process.send?.("ready for signals");
