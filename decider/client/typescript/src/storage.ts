/** Where a page keeps what has to outlive it, if the browser lets it. Called by `kept.ts` and `outbox.ts`. */

/** What localStorage, sessionStorage and `cookieStorage()` have in common. */
export type PageStorage = Pick<Storage, "getItem" | "setItem" | "removeItem" | "key" | "length">;

/** Several storages as one: what the first one does not take (it is full, or forbidden) goes to the next one. */
export class Store {
  constructor(readonly storages: readonly PageStorage[]) {}

  /** Whether anything took it. */
  set(key: string, value: string): boolean {
    this.remove(key); // an older value in another storage must not win
    return this.storages.some((one) => attempt(() => (one.setItem(key, value), true)));
  }

  get(key: string): string | undefined {
    return this.storages.map((one) => attempt(() => one.getItem(key))).find((found) => found != null) ?? undefined;
  }

  remove(key: string): void {
    for (const one of this.storages) attempt(() => one.removeItem(key));
  }

  /** All that begin so. */
  keys(prefix: string): string[] {
    const found = new Set<string>();
    for (const one of this.storages) {
      attempt(() => {
        for (let place = 0; place < one.length; place++) found.add(one.key(place) ?? "");
      });
    }
    return [...found].filter((key) => key.startsWith(prefix)).sort();
  }

  /** An entry as it was written; what is no such entry is removed. */
  read<T>(key: string, isRight: (found: T) => boolean): T | undefined {
    const found = attempt(() => JSON.parse(this.get(key) ?? "null") as T | null);
    if (found && attempt(() => isRight(found))) return found;
    this.remove(key);
    return undefined;
  }
}

/** localStorage, and sessionStorage for what does not fit; nothing where the browser has or allows neither. */
export function pageStorages(): PageStorage[] {
  if (typeof document === "undefined") return []; // a server: its visitors must not share what is kept
  const found = [attempt(() => globalThis.localStorage), attempt(() => globalThis.sessionStorage)];
  return found.filter((one) => one != null);
}

/**
 * Cookies as a storage, for `keptStorage`: decision ids then reach other hosts of the site (`domain: "shop.example"`),
 * the shop's own server, and webviews without localStorage. Some 250 bytes an experiment, sent with each call of
 * the page's own server.
 */
export function cookieStorage({ domain = "", maxAgeMs = 86_400_000 } = {}): PageStorage {
  // Cookies of others need not be encoded: what does not decode stays as it is, and hides none of ours.
  const decoded = (part: string) => attempt(() => decodeURIComponent(part)) ?? part;
  const all = () => document.cookie.split("; ").map((one) => one.split("=").map(decoded));
  const put = (key: string, value: string, seconds: number) => {
    const where = `path=/; samesite=lax${domain && `; domain=${domain}`}${location.protocol === "https:" ? "; secure" : ""}`;
    document.cookie = `${encodeURIComponent(key)}=${encodeURIComponent(value)}; max-age=${seconds}; ${where}`;
  };
  return {
    getItem: (key) => all().find(([name]) => name === key)?.[1] ?? null,
    setItem: (key, value) => put(key, value, Math.ceil(maxAgeMs / 1000)),
    removeItem: (key) => put(key, "", 0),
    key: (place) => all()[place]?.[0] ?? null,
    get length() {
      return all().length;
    },
  };
}

/** Every access may throw: denied by the browser's settings, or full. */
function attempt<T>(step: () => T): T | undefined {
  try {
    return step();
  } catch {
    return undefined;
  }
}
