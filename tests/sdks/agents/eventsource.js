// Clients of the npm package eventsource in one process.
"use strict";

const { emit, plan } = require("./lines.js");
const follow = require("./follow.js");

import("eventsource").then(({ EventSource }) =>
  plan.subscriptions.forEach((channels, number) => follow(EventSource, emit, plan.url, number, channels)),
);
