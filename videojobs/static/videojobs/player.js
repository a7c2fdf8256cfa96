// Shows a notice if the stored video can't be played. Without this script, only the player shows it.
"use strict";

{
  const player = document.querySelector(".videojobs-player");

  const showNotice = () => {
    document.querySelector("[data-videojobs-unreadable]").hidden = false;
    document.querySelector("[data-videojobs-outlook]").hidden = true;
    // A video that played and then failed may recover.
    if (player.readyState === HTMLMediaElement.HAVE_NOTHING) player.hidden = true;
  };

  player.addEventListener("error", showNotice);
  if (player.error) showNotice(); // The error event may precede this script.
}
