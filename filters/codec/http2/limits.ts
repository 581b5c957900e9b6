import type { Session } from "./session.ts";

/** Envoy's numbers of WINDOW_UPDATE frames: before any stream, and for each that is open or (times the option) DATA frame. */
const FREE_WINDOW_UPDATES = 5;
const WINDOW_UPDATES_PER_STREAM = 2;

/** Envoy's flood protection: fails the connection when a peer sends too many frames that cost it little. */
export class Limits {
  readonly #session: Session;
  #empty = 0;
  #priority = 0;
  #windowUpdates = 0;

  constructor(session: Session) {
    this.#session = session;
  }

  /** Counts consecutive frames without content; false if there are too many and the connection has failed. */
  countEmpty(isEmpty: boolean): boolean {
    if (!isEmpty) {
      this.#empty = 0;
      return true;
    }
    const { options, stats } = this.#session;
    if (++this.#empty <= options.maxEmptyFrames) return true;
    stats.emptyFramesFlood.inc();
    this.#session.failFlood("http2.inbound_empty_frames_flood");
    return false;
  }

  countPriority(): void {
    const { options, streams, stats } = this.#session;
    if (++this.#priority <= options.maxPriorityFramesPerStream * (1 + streams.size)) return;
    stats.priorityFramesFlood.inc();
    this.#session.failFlood("codec_error:Too_many_PRIORITY_frames");
  }

  /** False if there are too many and the connection has failed. */
  countWindowUpdate(): boolean {
    const { options, streams, stats, flow } = this.#session;
    const perBody = options.maxWindowUpdatesPerDataFrame * flow.dataFramesCounted;
    const allowed = FREE_WINDOW_UPDATES + WINDOW_UPDATES_PER_STREAM * (streams.size + perBody);
    if (++this.#windowUpdates <= allowed) return true;
    stats.windowUpdateFramesFlood.inc();
    this.#session.failFlood("codec_error:Too_many_WINDOW_UPDATE_frames");
    return false;
  }

  /** A closed stream takes with it what was allowed for its sake, used or not: the counts are held against the open ones. */
  onStreamClosed(): void {
    const { maxPriorityFramesPerStream } = this.#session.options;
    this.#priority = Math.max(0, this.#priority - maxPriorityFramesPerStream);
    this.#windowUpdates = Math.max(0, this.#windowUpdates - WINDOW_UPDATES_PER_STREAM);
  }

  /** Fails the connection if too many frames, such as answers to PING or SETTINGS, wait because the peer does not read. */
  checkOutput(): void {
    const session = this.#session;
    if (session.dead) return;
    const { options, out, stats } = session;
    if (out.frames > options.maxOutboundFrames) {
      stats.outboundFlood.inc();
      session.failFlood("http2.outbound_frames_flood");
    } else if (out.controlFrames > options.maxOutboundControlFrames) {
      stats.outboundControlFlood.inc();
      session.failFlood("http2.outbound_control_frames_flood");
    }
  }
}
