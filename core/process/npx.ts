/** How often to look whether the parent process is still there. */
const LOOK_MS = 500;

/**
 * Calls `end` once npx is gone, if it has started this process. npx passes a SIGTERM on only to the shell in which it runs this
 * process, and that shell ends without passing it on.
 */
export function onNpxEnded(end: () => void): void {
  if (!isUnderNpx()) return;
  const parent = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    end();
  }, LOOK_MS);
  timer.unref();
}

/** True if this process was started by `npx tsproxy`. */
function isUnderNpx(): boolean {
  const { npm_lifecycle_event: event, npm_lifecycle_script: script = "" } = process.env;
  return event === "npx" && /^\W*tsproxy\W*$/.test(script);
}
