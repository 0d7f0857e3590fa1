/**
 * What happens to a page: hidden, left, shown again, seen. Called by `client.ts`.
 *
 * There is no listener for `unload` or `beforeunload`: browsers keep no page with one for going back to it.
 */

export interface PageEvents {
  /** It may be gone in a moment. */
  hide: () => void;
  /** It goes away; kept: the browser keeps it, and may show it again. */
  leave: (kept: boolean) => void;
  /** It was left, and is shown again as it was. */
  again: () => void;
  /** It is looked at again, or the network is back. */
  return: () => void;
}

/** Listen; the result stops it. Nothing happens outside of a page. */
export function watchPage(events: PageEvents): () => void {
  if (typeof document === "undefined") return () => {};
  const stop = new AbortController();
  const on = (target: EventTarget, name: string, step: (event: Event) => void) =>
    target.addEventListener(name, step, { signal: stop.signal });
  on(document, "visibilitychange", () => (document.hidden ? events.hide() : events.return()));
  on(window, "pagehide", (event) => events.leave((event as PageTransitionEvent).persisted));
  on(window, "pageshow", (event) => {
    if (!(event as PageTransitionEvent).persisted) return;
    events.again();
    events.return();
  });
  on(window, "online", () => events.return());
  return () => stop.abort();
}

export interface SeenOptions {
  /** Part of the element that is in sight; of one that is larger than the window, part of the window. Default: 0.5. */
  share?: number;
  /** Milliseconds for which it is, without a break. Default: 1000. */
  forMs?: number;
}

const EACH_PERCENT = Array.from({ length: 101 }, (_, percent) => percent / 100);

/** Milliseconds after which an element without a size is looked at again: an image that comes is no new crossing. */
const EMPTY_PAUSE = 250;

/** Call `seen` once the element was in sight, in a page that is not hidden. The result stops it. Where the browser cannot
 * tell, it counts as seen. */
export function whenSeen(element: Element, { share = 0.5, forMs = 1000 }: SeenOptions, seen: () => void): () => void {
  if (typeof IntersectionObserver === "undefined") {
    seen();
    return () => {};
  }
  let inSight = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const finish = () => {
    stop();
    seen();
  };
  const look = () => {
    const counts = inSight && !document.hidden;
    if (!counts) clearTimeout(timer);
    timer = counts ? (timer ?? setTimeout(finish, forMs)) : undefined;
  };
  const observer = new IntersectionObserver((entries) => {
    const last = entries[entries.length - 1]!;
    inSight = covers(last, share);
    if (last.isIntersecting && !area(last.boundingClientRect)) {
      setTimeout(() => {
        observer.unobserve(element);
        if (!stopped) observer.observe(element);
      }, EMPTY_PAUSE);
    }
    look();
  }, { threshold: EACH_PERCENT });
  let stopped = false;
  const stop = () => {
    stopped = true;
    clearTimeout(timer);
    observer.disconnect();
    document.removeEventListener("visibilitychange", look);
  };
  document.addEventListener("visibilitychange", look);
  observer.observe(element);
  return stop;
}

function covers({ isIntersecting, intersectionRect, boundingClientRect, rootBounds }: IntersectionObserverEntry, share: number): boolean {
  const whole = Math.min(area(boundingClientRect), rootBounds ? area(rootBounds) : Infinity);
  // Rounding: an element of fractions of a pixel never reaches a share of 1 to the last digit.
  return isIntersecting && whole > 0 && area(intersectionRect) >= (share - 0.005) * whole;
}

function area({ width, height }: DOMRectReadOnly): number {
  return width * height;
}
