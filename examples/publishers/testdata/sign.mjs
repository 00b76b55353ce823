// Signs what standard input has, and prints the signatures and tokens.
import { readFileSync } from "node:fs";
import { Pushy } from "../pushy_api.mjs";
const { Requests, Tokens } = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify({
  Requests: Requests.map((v) => new Pushy("", v.Secret).signature(v.Time, v.ID, v.Path, Buffer.from(v.BodyBase64, "base64"))),
  Tokens: Tokens.map((v) => new Pushy("", v.Secret).token(v.Claims)),
}));
