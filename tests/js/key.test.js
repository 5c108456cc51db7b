"use strict";
const assert = require("node:assert");
const test = require("node:test");
const { namesIn, toggled, withSecret } = require("../../static/accounts/key.js");

test("names are taken apart at commas, without blanks and gaps", () => {
  assert.deepStrictEqual(namesIn(" wine, iris ,, "), ["wine", "iris"]);
  assert.deepStrictEqual(namesIn(""), []);
});

test("a click adds a name, and a second click takes it away", () => {
  assert.strictEqual(toggled("wine", "iris"), "wine, iris");
  assert.strictEqual(toggled("wine, iris", "wine"), "iris");
  assert.strictEqual(toggled("", "wine"), "wine");
});

test("the shown command names the secret before it is used", () => {
  assert.strictEqual(withSecret("curl x", "mlp_live_a_b"), "export MLP_API_KEY='mlp_live_a_b'\ncurl x");
});
