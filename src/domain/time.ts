/** Times as they go over the wire. */

const two = (n: number): string => String(n).padStart(2, '0');

/** Local time, `YYYY-MM-DD HH:MM:SS`. */
export function localTime(date = new Date()): string {
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** Seconds as PaddleX clients show them: `1小时2分5秒`; hours go on beyond 24. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 3600)}小时${Math.floor(whole / 60) % 60}分${whole % 60}秒`;
}

/** Seconds as PaddleX's logs show them: `1:02:05`. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}
