/**
 * What a page has -> what a request can carry. Whatever cannot be carried is refused, and the error names the field.
 *
 * Called by `messages.ts` and `fallback.ts`; pure. Every function throws a TypeError. Values may be personal, so an
 * error names the type alone.
 */

import type { Json, Struct } from "./proto.js";

/** Any object with fields: nothing is known about what a page passes. */
export type Fields = { readonly [name: string]: unknown };

/** For an error. */
export function typeOf(value: unknown): string {
  return value == null ? String(value) : `of type ${Array.isArray(value) ? "array" : typeof value}`;
}

export function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** A text that may be empty. */
export function text(field: string, value: unknown): string {
  if (typeof value !== "string") throw new TypeError(`${field}: is ${typeOf(value)}; give a text, as String(...) makes`);
  if (/\p{Cs}/u.test(value)) throw new TypeError(`${field}: has half of a surrogate pair, which no UTF-8 has`);
  return value;
}

/** A text that is not empty. */
export function fullText(field: string, value: unknown): string {
  if (value === "") throw new TypeError(`${field}: is empty; give a text`);
  return text(field, value);
}

export function texts(field: string, value: unknown): string[] {
  return list(field, value, "texts").map((one, place) => fullText(`${field}[${place}]`, one));
}

export function list(field: string, value: unknown, of: string): unknown[] {
  if (!Array.isArray(value)) throw new TypeError(`${field}: is ${typeOf(value)}; give an array of ${of}`);
  return value;
}

export function flag(field: string, value: unknown): boolean {
  if (typeof value !== "boolean") throw new TypeError(`${field}: is ${typeOf(value)}; give true or false`);
  return value;
}

/** A finite number. */
export function number(field: string, value: unknown): number {
  if (typeof value !== "number") throw new TypeError(`${field}: is ${typeOf(value)}; give a number`);
  if (!Number.isFinite(value)) throw new TypeError(`${field}: is ${value}; give a finite number`);
  return value;
}

/** Milliseconds, or how many of something. */
export function positive(field: string, value: unknown): number {
  if (!(number(field, value) > 0)) throw new TypeError(`${field}: is ${value}; give a number above 0`);
  return value as number;
}

/** Features by name, without the unknown ones. */
export function features(path: string, given: unknown): Struct {
  const found: Struct = {};
  for (const [name, value] of Object.entries(fields(path, given))) {
    const one = scalar(`${path}.${name}`, value);
    if (one !== null) found[text(`${path}: a name`, name)] = one;
  }
  return found;
}

/** Anything that JSON has. */
export function tree(field: string, value: unknown): Json {
  if (Array.isArray(value)) return value.map((one, place) => tree(`${field}[${place}]`, one));
  return isFields(value) ? branches(field, value) : scalar(field, value);
}

export function branches(field: string, value: unknown): Struct {
  const all = Object.entries(fields(field, value)).filter(([, one]) => one !== undefined);
  return Object.fromEntries(all.map(([name, one]) => [name, tree(`${field}.${name}`, one)]));
}

/** An object with these names alone, if any are told: one more would be lost without a word. */
export function fields(field: string, value: unknown, names?: readonly string[]): Fields {
  if (!isFields(value)) throw new TypeError(`${field}: is ${typeOf(value)}; give an object`);
  for (const name in value) {
    if (names && !names.includes(name)) {
      throw new TypeError(`${field}.${name}: there is no such field; there are ${names.join(", ")}`);
    }
  }
  return value;
}

function scalar(field: string, value: unknown): string | number | boolean | null {
  if (value == null || typeof value === "boolean") return value ?? null;
  if (typeof value === "string") return text(field, value);
  if (typeof value === "number") return number(field, value);
  throw new TypeError(`${field}: is ${typeOf(value)}; give a text, a number, a flag, or null where it is unknown`);
}
