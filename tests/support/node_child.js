// The program inside a `NodeDevice`: azure-iot-device for Node as an application would use it, told what to do on stdin.
// Run with one JSON argument: {"connection_string", "authority"}. One JSON command a line in, one JSON event a line out.
'use strict';
const readline = require('readline');
const { Client } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');

const say = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + '\n');
const spec = JSON.parse(process.argv[2]);
const client = Client.fromConnectionString(spec.connection_string, Mqtt);
let twin;

const verbs = {
  connect: () => client.open(),
  listen_for_methods: async ({ name }) =>
    client.onDeviceMethod(name, (request, response) => {
      say('method', { name: request.methodName, payload: request.payload });
      response.send(207, { was: request.payload }, () => {});
    }),
  twin: async () => {
    if (twin) await twin.get();
    else twin = await client.getTwin();
    const { desired, reported } = JSON.parse(JSON.stringify(twin.properties));
    say('twin', { desired, reported });
  },
  listen_for_desired: async () => twin.on('properties.desired', (patch) => say('desired', { patch })),
  report: ({ patch }) =>
    new Promise((resolve, reject) => twin.properties.reported.update(patch, (error) => (error ? reject(error) : resolve()))),
};

(async () => {
  await client.setOptions({ ca: spec.authority });
  client.on('error', () => {});
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    if (command.do === 'stop') break;
    try {
      await verbs[command.do](command);
      say('done', { what: command.do });
    } catch (error) {
      say('failed', { what: command.do, error: error.name });
    }
  }
  await client.close();
  say('stopped');
  process.exit(0);
})();
