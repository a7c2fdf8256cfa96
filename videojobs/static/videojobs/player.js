// Says so where the stored video can't be played. Without this script, the player alone shows it.
"use strict";

{
  const player = document.querySelector(".videojobs-player");

  const tell = () => {
    document.querySelector("[data-videojobs-unreadable]").hidden = false;
    document.querySelector("[data-videojobs-outlook]").hidden = true;
    // What has begun to play, and broke off, may go on.
    if (player.readyState === HTMLMediaElement.HAVE_NOTHING) player.hidden = true;
  };

  player.addEventListener("error", tell);
  if (player.error) tell(); // before this script was there
}
