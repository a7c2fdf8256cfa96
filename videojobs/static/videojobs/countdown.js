/* Counts down the times of a page: the words that the server wrote, and would write a second later.

   A time that has come stays at "now", and what was to be done by then falls silent: what became of
   it, the page doesn't know until it is loaded again. Without this script the words stay as they are. */
"use strict";

{
  const patterns = document.getElementById("videojobs-countdown").dataset;
  const ahead = Date.now() - Number(patterns.clock);
  const cells = document.querySelectorAll("time[data-videojobs-countdown]");

  const fill = (pattern, values) => pattern.replace(/%\((\w+)\)[ds]/g, (_, name) => values[name]);

  const span = (seconds) => {
    const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60);
    if (minutes < 1) return fill(patterns.seconds, { seconds });
    if (hours < 1) return fill(patterns.minutes, { minutes });
    if (hours >= 24) return fill(patterns.days, { days: Math.floor(hours / 24) });
    const rest = minutes % 60;
    return fill(rest ? patterns.hoursMinutes : patterns.hours, { hours, minutes: rest });
  };

  const words = (cell) => {
    const left = (Date.parse(cell.dateTime) - (Date.now() - ahead)) / 1000;
    const pattern = cell.dataset.videojobsCountdown;
    if (left >= 1) return fill(patterns[pattern], { time: span(Math.floor(left)) });
    return pattern === "in" ? patterns.now : "";
  };

  const tick = () => cells.forEach((cell) => { cell.textContent = words(cell); });

  if (cells.length) setInterval(tick, 1000);
}
