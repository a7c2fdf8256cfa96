/* Updates the relative times of a page each second, in the server's words.

   A past time stays at "now", or becomes empty if it was the end of an expectation: only a reload
   can show the outcome. Without this script, the times stay as rendered. */
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
