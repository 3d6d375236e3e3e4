// Certificate databases, as browsers read them.
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";

// Makes a database in `path` that trusts the authority in this file, for servers.
export function trust(path, authority) {
  mkdirSync(path, { recursive: true });
  const database = ["-d", `sql:${path}`];
  execFileSync("certutil", [...database, "-N", "--empty-password"]);
  execFileSync("certutil", [...database, "-A", "-n", "root", "-t", "C,,", "-i", authority]);
}

// Adds a certificate of the user's and its key. The database takes both in a file of PKCS #12 alone.
export function own(path, certificate, key) {
  const file = join(path, "own.p12");
  execFileSync("openssl", ["pkcs12", "-export", "-in", certificate, "-inkey", key, "-out", file, "-passout", "pass:"]);
  execFileSync("pk12util", ["-d", `sql:${path}`, "-i", file, "-W", "", "-K", ""]);
}
