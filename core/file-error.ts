import { userInfo } from "node:os";

/** Why the system refused a file, in plain words, and where they are not plain enough, how to mend it. */
export function fileError(error: unknown): string {
  const { code = "", message } = error as NodeJS.ErrnoException;
  return code === "EACCES" || code === "EPERM"
    ? `permission denied for user ${userName()}; change the mode of the file or of a folder above it`
    : (REASONS[code] ?? message);
}

const REASONS: Readonly<Record<string, string>> = {
  EISDIR: "it is a directory; name a file in it",
  ELOOP: "it is a link that leads back to itself",
  EMFILE: "too many files are open; raise the limit (ulimit -n)",
  ENAMETOOLONG: "its path is longer than the system allows",
  ENFILE: "too many files are open on this system; raise fs.file-max",
  ENOENT: "no such file or directory",
  ENOSPC: "the disk is full",
  ENOTDIR: "what its path takes for a directory is a file",
  EROFS: "the file system is read-only",
};

/** In a container the user often has a number only, for which `userInfo` throws. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return `${process.getuid?.()}`;
  }
}
