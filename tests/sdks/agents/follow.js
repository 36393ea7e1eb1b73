// One client of Server-Sent Events, for the EventSource of Node and of browsers alike.
"use strict";

function follow(EventSource, emit, url, number, channels) {
  let last = "";
  let resumes = false;

  function open() {
    const wanted = new URL(url);
    channels.forEach((channel) => wanted.searchParams.append("channel", channel));
    if (last) wanted.searchParams.set("last_event_id", last);
    const source = new EventSource(wanted.href);
    const listen = (kind, take) =>
      source.addEventListener(kind, (event) => {
        last = event.lastEventId || last;
        take(event.data && JSON.parse(event.data));
      });
    listen("welcome", ({ epoch, subscribed, rejected }) => {
      rejected.forEach(({ channel, code }) => emit("error", number, `${channel} rejected: ${code}`));
      const at = Number(last.slice(last.lastIndexOf(":") + 1));
      subscribed.forEach((channel) => emit("subscribed", number, channel, epoch, at, resumes, resumes));
      resumes = true;
    });
    listen("message", ({ channel, seq }) => emit("message", number, "", channel, seq));
    listen("gap", ({ channel, from, to, reason }) => emit("gap", number, channel, from, to, reason));
    listen("closing", ({ code, reason }) => emit("lost", number, code, reason));
    listen("position", () => {});
    source.addEventListener("error", () => {
      const refused = source.readyState === EventSource.CLOSED;
      emit("lost", number, 0, refused ? "refused" : "returns by itself");
      if (refused) setTimeout(open, 500 + 1000 * Math.random());
    });
  }

  open();
}

if (typeof module !== "undefined") module.exports = follow;
