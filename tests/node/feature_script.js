// The device's story of tests/support/feature_script.py, told by the unmodified Node SDK: one line for each thing that was
// observed at either end. Run with the same JSON argument. Times are left out; every id is the script's own.

'use strict';

const { Client, Message } = require('azure-iot-device');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');

const WITHIN_MS = 15000;
const ODD = "a/b+c=d&e%f #g?é€😀~'()*!";

const script = JSON.parse(process.argv[2]);
const identity = script.device;
let seen = 0;

function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
}

const say = (what, more = {}) => console.log(`${what} ${JSON.stringify(sorted(more))}`);

async function ask(method, path, body) {
  const options = { method, body: body && JSON.stringify({ identity, ...body }) };
  return (await fetch(script.control + path, options)).json();
}

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${WITHIN_MS} ms: ${what}`)), WITHIN_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function until(condition, what) {
  for (const end = Date.now() + WITHIN_MS; !(await condition()); ) {
    if (Date.now() > end) throw new Error(`not within ${WITHIN_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

// A queue whose taker waits.
class Inbox {
  constructor() { this.items = []; this.takers = []; }
  put(item) { this.takers.length ? this.takers.shift()(item) : this.items.push(item); }
  take(what) {
    if (this.items.length) return Promise.resolve(this.items.shift());
    return within(new Promise((resolve) => this.takers.push(resolve)), what);
  }
}

async function attempt(what, action) {
  try {
    say(what, { gave: (await action()) ?? null });
  } catch (error) {
    say(what, { raised: error.name, saying: error.message });
  }
}

async function hubHasTelemetry(count = 1) {
  let found = [];
  await until(async () => {
    found = await ask('GET', `/messages?identity=${identity}&since=${seen}`);
    return found.length >= count;
  }, 'telemetry at the hub');
  for (const { sequence, bag, system, custom, payload, qos } of found) {
    seen = sequence + 1;
    say('hub has telemetry', { bag, system, custom, payload, qos });
  }
}

async function telemetry(client) {
  await client.sendEvent(new Message('plain'));
  await hubHasTelemetry();
  const full = new Message(JSON.stringify({ t: 21.5 }));
  Object.assign(full, {
    messageId: 'id 1/&', correlationId: 'c=1', userId: 'user %', contentType: 'application/json',
    contentEncoding: 'utf-8', expiryTimeUtc: '2030-01-02T03:04:05Z', ack: 'full',
  });
  full.properties.add(ODD, ODD);
  full.properties.add('empty', '');
  full.properties.add('twice', '1');
  full.properties.add('twice', '2');
  await client.sendEvent(full);
  await hubHasTelemetry();
  for (let number = 0; number < 20; number += 1) await client.sendEvent(new Message(String(number)));
  await hubHasTelemetry(20);
}

async function completed(number) {
  let where = {};
  await until(async () => {
    where = await ask('GET', `/cloud-messages?identity=${identity}&number=${number}`);
    return where.state !== 'enqueued' && where.state !== 'invisible';
  }, `the end of cloud message ${number}`);
  say("hub's cloud message", { number, ...where });
}

async function cloudMessages(client) {
  const got = new Inbox();
  client.on('message', (message) => got.put(message));
  const everything = {
    message_id: 'm 1', correlation_id: 'c/1', user_id: 'u&1', content_type: 'text/plain', content_encoding: 'utf-8',
    ack: 'full', lifetime: 600, custom: { [ODD]: ODD, empty: '' },
  };
  const bodies = [{ body: 'bare' }, { body: 'full', ...everything }, { body: 'raw', bag: '%24.mid=raw&a%2bb=1%2b2' }];
  for (const message of bodies) {
    const { number } = await ask('POST', '/cloud-messages', message);
    const came = await got.take('a cloud message');
    say('client has message', {
      body: came.data.toString(), messageId: came.messageId, correlationId: came.correlationId, userId: came.userId,
      contentType: came.contentType, contentEncoding: came.contentEncoding, ack: came.ack,
      custom: came.properties.propertyList,
    });
    await client.complete(came);
    await completed(number);
  }
}

async function call(method, payload, seconds = WITHIN_MS / 1000) {
  return ask('POST', '/methods', { method, payload, seconds });
}

async function methods(client) {
  say('method before the handler', await call('echo', 1));
  client.onDeviceMethod('echo', (request, response) => response.send(200, request.payload));
  client.onDeviceMethod('fail', (_request, response) => response.send(500, { why: ODD }));
  client.onDeviceMethod('silent', () => {});
  await until(async () => (await call('echo', null)).code !== 404103, 'the handler is subscribed');
  say('method', await call('echo', { a: [1, ODD, null] }));
  say('method', await call('fail', ODD));
  say('methods at once', { answers: await Promise.all([...Array(8).keys()].map((number) => call('echo', number))) });
  say('method without an answer', await call('silent', 1, 0.5));
  say('method behind a silent one', await call('echo', 'still well'));
}

async function twins(client) {
  const twin = await within(client.getTwin(), 'the twin');
  say('twin', { properties: JSON.parse(JSON.stringify(twin.properties)) });
  const report = (patch) => within(
    new Promise((resolve, reject) => {
      twin.properties.reported.update(patch, (error) => (error ? reject(error) : resolve()));
    }),
    'the answer to a reported patch',
  );
  await attempt('twin patch', () => report({ a: 1, b: { c: [1, 2.5, true], d: 'é' }, gone: 1 }));
  await attempt('twin patch', () => report({ gone: null }));
  const changes = new Inbox();
  twin.on('properties.desired', (change) => changes.put(change));
  say('client has desired', await changes.take('the desired properties as they are'));
  // The SDK calls back before its SUBSCRIBE is answered, and the hub queues no desired changes.
  await until(async () => {
    const { subscriptions } = await ask('GET', `/session?identity=${identity}`);
    return '$iothub/twin/PATCH/properties/desired/#' in subscriptions;
  }, 'the device listens for desired changes');
  await ask('POST', '/desired', { patch: { interval: 5, x: { y: 'é' } } });
  say('client has desired', await changes.take('a desired change'));
  for (const value of [429, 503]) {
    await ask('POST', '/faults', { kind: 'twin_status', value, count: 1 });
    await attempt(`twin patch under ${value}`, () => report({ z: 1 }));
  }
  const { desired, reported } = await ask('GET', `/twin?identity=${identity}`);
  say("hub's twin", { desired, reported });
}

async function main() {
  const parts = [
    `HostName=${script.hostname}`, `DeviceId=${identity}`, `SharedAccessKey=${script.keys[identity]}`,
    ...(script.gateway ? [`GatewayHostName=${script.gateway}`] : []),
  ];
  const client = Client.fromConnectionString(parts.join(';'), script.websockets ? MqttWs : Mqtt);
  await client.setOptions({ ca: script.authority });
  await within(client.open(), 'the connection');
  await telemetry(client);
  await cloudMessages(client);
  await methods(client);
  await twins(client);
  await client.close();
  say('end');
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
