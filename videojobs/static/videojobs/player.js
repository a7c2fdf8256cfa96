// Shows a notice if the stored video or image can't be shown. Without this script, only the player shows it.
"use strict";

{
  const player = document.querySelector(".videojobs-player");

  const showNotice = () => {
    document.querySelector("[data-videojobs-unreadable]").hidden = false;
    document.querySelector("[data-videojobs-outlook]").hidden = true;
    // A video that played and then failed may recover.
    if (!player.readyState) player.hidden = true; // HAVE_NOTHING, or an image
  };

  player.addEventListener("error", showNotice);
  // The error event may precede this script.
  if (player.error || (player.complete && !player.naturalWidth)) showNotice();
}
