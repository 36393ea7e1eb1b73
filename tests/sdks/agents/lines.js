// What the agents of Node share: the plan in their argument, records as lines of JSON, an end with their input.
"use strict";

const WRITE_MS = 50;
let waiting = [];

function emit(...record) {
  waiting.push(JSON.stringify(record));
}

function write() {
  if (waiting.length) process.stdout.write(waiting.join("\n") + "\n");
  waiting = [];
}

setInterval(write, WRITE_MS);
process.stdin.on("end", () => process.exit(0)).resume();
process.on("uncaughtException", (error) => {
  emit("error", -1, String(error.stack));
  write();
});

module.exports = { emit, plan: JSON.parse(process.argv[2]) };
