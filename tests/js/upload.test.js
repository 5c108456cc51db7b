// The upload page says how far it is and what is wrong, in words that help.
"use strict";

const assert = require("node:assert/strict");
const { test } = require("node:test");
const upload = require("../../static/registry/upload.js");

test("sizes are said as people say them", () => {
  assert.equal(upload.sizeWords(999), "999 bytes");
  assert.equal(upload.sizeWords(2_500_000), "2.5 MB");
  assert.equal(upload.sizeWords(5e9), "5.00 GB");
});

test("what is sent is said with speed and time left", () => {
  assert.equal(upload.sentWords(1e6, 5e6, 2e6), "1.0 MB of 5.0 MB sent, 2.0 MB/s, about 2 s left.");
  assert.equal(upload.sentWords(1e6, 5e6, 0), "1.0 MB of 5.0 MB sent.");
  assert.equal(upload.sentWords(5e6, 5e6, 2e6), "5.0 MB of 5.0 MB sent. The server stores it.");
  assert.match(upload.sentWords(0, 9e9, 1e6), /about 3 h left/);
});

test("speed is that of the last seconds, so that a stall is seen", () => {
  let samples = [];
  for (let second = 0; second <= 20; second += 1) {
    const at = second * 1000;
    samples = upload.keptSamples([...samples, { at, sent: Math.min(second, 10) * 1e6 }], at);
  }
  assert.equal(upload.speedOf(samples), 0);
  assert.ok(samples.length <= 7);
  assert.equal(upload.speedOf([{ at: 0, sent: 0 }]), 0);
  assert.equal(upload.speedOf([{ at: 0, sent: 0 }, { at: 0, sent: 9 }]), 0);
  assert.equal(upload.speedOf([{ at: 0, sent: 0 }, { at: 2000, sent: 6 }]), 3);
});

test("wrong JSON is said with what is wrong, and nothing is said of an empty field", () => {
  assert.equal(upload.jsonProblem(" \n", "object"), "");
  assert.equal(upload.jsonProblem('{"a": 1}', "object"), "");
  assert.match(upload.jsonProblem("{'a': 1}", "object"), /not JSON: .*double quotes/);
  assert.match(upload.jsonProblem('{"a": x}', "object"), /not JSON: Unexpected token '?x'?\./);
});

test("a list is no object, but may be an example", () => {
  assert.match(upload.jsonProblem("[1]", "object"), /JSON object/);
  assert.match(upload.jsonProblem("null", "object"), /JSON object/);
  assert.equal(upload.jsonProblem("[[1, 2]]", "any"), "");
});

test("a problem belongs to the field at the head of its pointer", () => {
  assert.equal(upload.fieldOf("/metrics/accuracy"), "metrics");
  assert.equal(upload.fieldOf(""), "");
});

test("an answer that is no JSON still says what to do", () => {
  assert.deepEqual(upload.problemIn('{"detail": "x"}'), { detail: "x" });
  assert.match(upload.problemIn("<html>").detail, /Send the file again/);
});

test("the checks are asked for by name and number, whatever the name holds", () => {
  const pattern = "/admin/registry-pages/uploads/NAME/0/progress/";
  assert.equal(upload.progressOf(pattern, { model: "a.b", number: 12 }), "/admin/registry-pages/uploads/a.b/12/progress/");
});

test("a reload finds the version whose checks the page's address names", () => {
  const version = { model: "a.b&c", number: 12 };
  assert.deepEqual(upload.versionIn(upload.addressOf(version)), version);
});

test("an address that names no version, or half of one, shows an empty upload page", () => {
  for (const query of ["", "?model=wine", "?checks=1", "?model=wine&checks=0", "?model=wine&checks=1x"]) {
    assert.equal(upload.versionIn(query), null);
  }
});
