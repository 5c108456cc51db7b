"use strict";

const test = require("node:test");
const assert = require("node:assert");
const { pointSizes } = require("../../static/core/charts.js");

test("only a value without neighbours is a point; the line draws the others", () => {
  assert.deepStrictEqual(pointSizes([null, 4, null, 1, 2, null, 7]), [0, 3, 0, 0, 0, 0, 3]);
});

test("a zero is a value, and a lone one of two edges is a point", () => {
  assert.deepStrictEqual(pointSizes([0, null, 3, 0]), [3, 0, 0, 0]);
  assert.deepStrictEqual(pointSizes([5]), [3]);
});
