// What the bell says is new: only what came after the last look, and only what is unread.
"use strict";

const test = require("node:test");
const assert = require("node:assert/strict");
const { unseen, newsWords } = require("../../static/monitoring/bell.js");

const shown = [
  { id: 9, isUnread: true, title: "wine 4 is ready" },
  { id: 8, isUnread: false, title: "read elsewhere" },
  { id: 7, isUnread: true, title: "seen before" },
];

test("the first look says nothing, however much there is to read", () => {
  assert.deepEqual(unseen(shown, null), []);
});

test("only what is unread and came after the last look is said", () => {
  assert.deepEqual(unseen(shown, 7).map((one) => one.id), [9]);
  assert.deepEqual(unseen(shown, 9), []);
});

test("one is said by its title and several by their number", () => {
  assert.equal(newsWords(["wine 4 is ready"]), "wine 4 is ready");
  assert.equal(newsWords(["a", "b"]), "2 new notifications");
});
