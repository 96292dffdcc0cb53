// Points in time as the browser's own time zone has them.

/** A Unix time in seconds as "YYYY-MM-DDTHH:MM:SS". */
export function local(seconds) {
  const time = new Date(1000 * seconds), two = (number) => String(number).padStart(2, "0");
  const day = [String(time.getFullYear()).padStart(4, "0"), two(time.getMonth() + 1), two(time.getDate())].join("-");
  return `${day}T${[time.getHours(), time.getMinutes(), time.getSeconds()].map(two).join(":")}`;
}

/** The name of the time zone, such as "Europe/Berlin". */
export function zone() {
  return Intl.DateTimeFormat().resolvedOptions().timeZone;
}
