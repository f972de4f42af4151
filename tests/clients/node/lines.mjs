// Clients of line protocol. Prints a line for each case, which the tests read: "ok NAME" or "failed NAME: why".
//
// Arguments: a node's HTTP address, one that wants tokens, a token that may write; or, to write rows while a node is
// killed: "stream", addresses by commas, how many rows.

import assert from "node:assert/strict";
import { HttpError, InfluxDB, Point } from "@influxdata/influxdb-client";
import { InfluxDBClient, Point as Point3 } from "@influxdata/influxdb3-client";
import { Sender } from "@questdb/nodejs-client";

const START = 1704067200000000001n;
const quiet = () => {};

function questdb(address, more = "") {
  return Sender.fromConfig(`http::addr=${address};auto_flush=off;${more}`, { log: quiet });
}

async function questdbVersions(address) {
  for (const version of ["auto", "1", "2", "3"]) {
    const sender = await questdb(address, `protocol_version=${version};`);
    for (let i = 0; i < 100; i++) {
      sender.table(`node_questdb_${version}`).symbol("city", `Oslo, = ${i % 3}`).intColumn("n", i).floatColumn("f", i + 0.1);
      sender.stringColumn("s", `line\nbreak "${i}`).booleanColumn("b", i % 2 === 0);
      sender.timestampColumn("seen", START / 1000n + BigInt(i), "us");
      if (version !== "1") sender.arrayColumn("a", [[i, 0.5], [1.5, 2.5]]);
      if (version === "auto" || version === "3") sender.decimalColumnText("d", "12.345");
      await sender.at(START + BigInt(i), "ns");
    }
    await sender.flush();
    await sender.close();
  }
}

async function questdbErrors(address) {
  const sender = await questdb(address);
  await sender.table("node_clash").intColumn("n", 1).at(START, "ns");
  await sender.flush();
  await sender.table("node_clash").stringColumn("n", "text").at(START, "ns");
  await assert.rejects(() => sender.flush(), /the column is Int64, the line has a string/);
  await sender.close();
}

async function questdbTokens(guarded, token) {
  const write = async (secret) => {
    const sender = await questdb(guarded, secret);
    try {
      await sender.table("node_questdb_tokens").intColumn("n", 1).at(START, "ns");
      await sender.flush();
    } finally {
      await sender.close();
    }
  };
  await write(`token=${token};`);
  await write(`username=me;password=${token};`);
  await assert.rejects(() => write(""), /401/);
}

async function influxdb2(address) {
  // One batch: closing the writer waits for the last one only.
  const batching = { batchSize: 10000, gzipThreshold: 100 };
  const writer = new InfluxDB({ url: `http://${address}`, token: "any" }).getWriteApi("o", "b", "ns", batching);
  for (let i = 0; i < 1000; i++) {
    const point = new Point("node_influxdb2").tag("city", `c ${i % 3}`).intField("n", i).floatField("f", i + 0.5).stringField("s", 'a "b"');
    writer.writePoint(point.timestamp(String(START + BigInt(i))));
  }
  await writer.close();
  const failed = [];
  const options = { maxRetries: 0, writeFailed: (error) => void failed.push(error) };
  const wrong = new InfluxDB({ url: `http://${address}`, token: "any" }).getWriteApi("o", "b", "ns", options);
  wrong.writeRecord('node_influxdb2 n="text" 1');
  await assert.rejects(() => wrong.flush(), HttpError);
  await wrong.close().catch(quiet);
  assert.equal(failed[0].statusCode, 400);
  assert.match(failed[0].body, /column \\"n\\"/);
}

async function influxdb2Tokens(guarded, token) {
  for (const [secret, status] of [[token, undefined], ["wrong", 401]]) {
    let got;
    const options = { maxRetries: 0, writeFailed: (error) => void (got = error.statusCode) };
    const writer = new InfluxDB({ url: `http://${guarded}`, token: secret }).getWriteApi("o", "b", "ns", options);
    writer.writeRecord("node_influxdb2_tokens n=1i 1");
    await writer.close().catch(quiet);
    assert.equal(got, status);
  }
}

async function influxdb3(address) {
  const client = new InfluxDBClient({ host: `http://${address}`, token: "any", database: "d" });
  const points = [];
  for (let i = 0; i < 1000; i++) {
    const point = Point3.measurement("node_influxdb3").setTag("room", `r${i % 7}`).setIntegerField("n", i).setFloatField("f", i + 0.5);
    points.push(point.setTimestamp(String(START + BigInt(i))));
  }
  await client.write(points);
  await client.write("node_influxdb3,room=r0 n=1000i,f=0.5 1704067300000000000", undefined, undefined, { noSync: true });
  await assert.rejects(() => client.write('node_influxdb3 n="text" 1'), /column/);
  await client.close();
}

async function influxdb3Tokens(guarded, token) {
  for (const secret of [token, "wrong"]) {
    const client = new InfluxDBClient({ host: `http://${guarded}`, token: secret, database: "d" });
    const written = client.write("node_influxdb3_tokens n=1i 1");
    if (secret === token) await written;
    else await assert.rejects(() => written);
    await client.close();
  }
}

/** Writes rows to the first node that takes them, and says how many were acknowledged. */
async function stream(addresses, rows) {
  let at = 0;
  for (let i = 0; i < rows; i += 10) {
    for (let attempt = 0; ; attempt++) {
      let sender;
      try {
        sender = await questdb(addresses[at % addresses.length], "retry_timeout=500;");
        for (let n = i; n < i + 10; n++) {
          await sender.table("streamed").intColumn("n", n).at(START + BigInt(n) * 1000000n, "ns");
        }
        await sender.flush();
        break;
      } catch (error) {
        if (attempt === 20) throw error;
        at++;
        await new Promise((resolve) => setTimeout(resolve, 100));
      } finally {
        await sender?.close();
      }
    }
    console.log(`acknowledged ${i + 10}`);
  }
}

async function main([address, guarded, token]) {
  const cases = {
    questdb_versions: () => questdbVersions(address),
    questdb_errors: () => questdbErrors(address),
    questdb_tokens: () => questdbTokens(guarded, token),
    influxdb2: () => influxdb2(address),
    influxdb2_tokens: () => influxdb2Tokens(guarded, token),
    influxdb3: () => influxdb3(address),
    influxdb3_tokens: () => influxdb3Tokens(guarded, token),
  };
  for (const [name, run] of Object.entries(cases)) {
    try {
      await run();
      console.log(`ok ${name}`);
    } catch (error) {
      process.exitCode = 1;
      console.log(`failed ${name}: ${String(error.stack).replaceAll("\n", " ").slice(0, 1500)}`);
    }
  }
}

if (process.argv[2] === "stream") await stream(process.argv[3].split(","), Number(process.argv[4]));
else await main(process.argv.slice(2));
