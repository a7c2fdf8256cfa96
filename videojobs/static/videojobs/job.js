// Polls the state of each <video-job> of the template tag until its job is finished, and inserts the
// video once it is stored. Texts come from the server, in the page's language.
"use strict";

(() => {
  const LONGEST_WAIT = 15000;
  const GROWTH = 1.25;
  // Abort slower requests, such as after the device has left its network.
  const PATIENCE = 20000;

  class VideoJobElement extends HTMLElement {
    connectedCallback() {
      this.querySelectorAll("video, img").forEach((shown) => this.watch(shown));
      if (!this.dataset.url || this.finished) return;
      this.shortestWait = Math.max(1, Number(this.dataset.interval) || 3) * 1000;
      this.wait = this.shortestWait;
      this.onVisible = () => this.ask();
      document.addEventListener("visibilitychange", this.onVisible);
      this.askLater();
    }

    disconnectedCallback() {
      clearTimeout(this.timer);
      document.removeEventListener("visibilitychange", this.onVisible);
    }

    finish() {
      this.finished = true;
      this.disconnectedCallback();
      // Also if access was revoked: an indeterminate bar would move forever.
      this.part("progress")?.remove();
      this.write("left", "");
    }

    askLater() {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.ask(), this.wait);
    }

    async ask() {
      // A hidden page resumes on visibilitychange.
      if (document.hidden || this.asking || this.finished) return;
      this.asking = true;
      let changed = false;
      const asked = new AbortController();
      const tooLong = setTimeout(() => asked.abort(), PATIENCE);
      try {
        // The browser revalidates its copy with the ETag, mostly for a 304.
        const answer = await fetch(this.dataset.url, {
          cache: "no-cache",
          signal: asked.signal,
        });
        if (answer.status === 403 || answer.status === 404) return this.finish();
        if (answer.ok) changed = await this.take(answer);
      } catch {
        // Offline, or the response was not JSON: try again later.
      } finally {
        clearTimeout(tooLong);
        this.asking = false;
      }
      if (this.finished || !this.isConnected) return;
      this.wait = changed ? this.shortestWait : Math.min(this.wait * GROWTH, LONGEST_WAIT);
      this.askLater();
    }

    async take(answer) {
      const etag = answer.headers.get("ETag");
      const job = await answer.json();
      // Use the server's clock, since the visitor's may be wrong.
      this.show(job, Date.parse(answer.headers.get("Date")) || Date.now());
      if (job.finished) this.finish();
      const changed = etag !== this.etag;
      this.etag = etag;
      return changed;
    }

    show(job, now) {
      this.dataset.phase = job.phase;
      this.write("text", this.dataset[job.phase]);
      this.write("error", job.error);
      this.write("left", job.expected_at && this.timeLeft((Date.parse(job.expected_at) - now) / 1000));
      const progress = this.part("progress");
      if (progress && job.progress === null) progress.removeAttribute("value");
      else if (progress) progress.value = job.progress;
      if (!job.output_url || this.querySelector("video, img, [data-part=unplayable]")) return;
      this.prepend(job.content_type?.startsWith("image/") ? this.image(job) : this.video(job));
    }

    timeLeft(seconds) {
      if (seconds <= 0) return "";
      return seconds > 90
        ? this.dataset.minutesLeft.replace("{}", Math.round(seconds / 60))
        : this.dataset.secondsLeft.replace("{}", Math.ceil(seconds / 10) * 10);
    }

    image(job) {
      const image = document.createElement("img");
      image.alt = this.dataset.imageLabel;
      image.src = job.output_url;
      this.watch(image);
      return image;
    }

    video(job) {
      const video = document.createElement("video");
      video.controls = true;
      video.playsInline = true;
      video.preload = "metadata";
      if (job.poster_url) video.poster = job.poster_url;
      video.src = job.output_url;
      video.setAttribute("aria-label", this.dataset.label);
      this.watch(video);
      return video;
    }

    // Replace a video that can't be loaded, which browsers show as a black box, or an image, with a
    // message.
    watch(shown) {
      const { unplayable, imageUnplayable } = this.dataset;
      const text = shown instanceof HTMLImageElement ? imageUnplayable : unplayable;
      const replace = () => {
        if (shown.readyState > HTMLMediaElement.HAVE_NOTHING || !text) return;
        const words = document.createElement("p");
        words.dataset.part = "unplayable";
        words.textContent = text;
        shown.replaceWith(words);
      };
      shown.addEventListener("error", replace);
      // The error came before this script was loaded.
      if (shown.error || (shown.complete && !shown.naturalWidth)) replace();
    }

    part(name) {
      return this.querySelector(`[data-part="${name}"]`);
    }

    // Write changes only: screen readers announce each write.
    write(name, text) {
      const element = this.part(name);
      if (!element || element.textContent === (text || "")) return;
      element.textContent = text || "";
      element.hidden = !text;
    }
  }

  customElements.define("video-job", VideoJobElement);
})();
