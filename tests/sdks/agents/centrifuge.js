// Clients of centrifuge-js in one process.
"use strict";

const { emit, plan } = require("./lines.js");
const protobuf = plan.protocol === "protobuf";
const { Centrifuge } = require(protobuf ? "centrifuge/build/protobuf" : "centrifuge");
const websocket = require("ws");

function follow(number, channels) {
  const client = new Centrifuge(plan.url, {
    websocket,
    protocol: plan.protocol,
    maxReconnectDelay: plan.longest_wait_ms,
    maxServerPingDelay: 10000,
  });
  client.on("connecting", ({ code, reason }) => code && emit("lost", number, code, reason));
  client.on("disconnected", ({ code, reason }) => emit("error", number, `ended: ${code} ${reason}`));
  for (const channel of channels) {
    const subscription = client.newSubscription(channel, {
      minResubscribeDelay: 500,
      maxResubscribeDelay: plan.longest_wait_ms,
    });
    subscription.on("publication", ({ offset, tags }) =>
      emit("message", number, channel, tags?.channel ?? channel, Number(offset)),
    );
    subscription.on("subscribed", ({ streamPosition, wasRecovering, recovered }) =>
      emit("subscribed", number, channel, streamPosition.epoch, Number(streamPosition.offset), wasRecovering, recovered),
    );
    subscription.on("subscribing", ({ code, reason }) => code > 1 && emit("lost", number, code, reason));
    subscription.on("unsubscribed", ({ code, reason }) => emit("error", number, `${channel} ended: ${code} ${reason}`));
    subscription.subscribe();
  }
  client.connect();
}

plan.subscriptions.forEach((channels, number) => follow(number, channels));
