// Verifies posts that Nightbell made with the official library of Standard Webhooks (npm, `standardwebhooks`). Input and
// output are those of standard_webhooks.py. The folder of the library is the first argument.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { Webhook } = createRequire(`${process.argv[2]}/`)("standardwebhooks");

let wrong = 0;
for (const test of JSON.parse(readFileSync(0, "utf8"))) {
  let good = true;
  let why = "";
  try {
    new Webhook(test.secret).verify(Buffer.from(test.body, "base64").toString("utf8"), test.headers);
  } catch (error) {
    good = false;
    why = ` (${error.message})`;
  }
  wrong += good !== test.good;
  console.log(`${test.name}: ${good ? "verified" : "refused"}${why}${good === test.good ? "" : "  <- WRONG"}`);
}
process.exit(wrong ? 1 : 0);
