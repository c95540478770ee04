/** The answer's bytes. */

export const JSON_TYPE = 'application/json; charset=utf-8';

const UNSAFE = /[<\u2028\u2029]/;
const UNSAFE_ALL = /[<\u2028\u2029]/g;
const ESCAPES: Readonly<Record<string, string>> = { '<': '\\u003c', '\u2028': '\\u2028', '\u2029': '\\u2029' };

/**
 * JSON that is safe where the PaddleX page puts it: it runs answers through `eval` and pastes them into HTML.
 * NaN and infinities become `null`. Never emits anything but one value.
 */
export function toJson(value: unknown): string {
  const text = JSON.stringify(value) ?? 'null';
  // `<` and the two line separators occur in strings only, so a replacement in the whole text is right.
  return UNSAFE.test(text) ? text.replace(UNSAFE_ALL, (found) => ESCAPES[found] as string) : text;
}

/** Success envelope around a handler's fields; a handler's own `status` (-1 with data) wins. */
export function envelope(answer: unknown): string {
  if (answer === undefined || answer === null) return '{"status":1}';
  if ((answer as { status?: unknown }).status !== undefined) return toJson(answer);
  const text = toJson(answer);
  return text === '{}' ? '{"status":1}' : `{"status":1,${text.slice(1)}`;
}
