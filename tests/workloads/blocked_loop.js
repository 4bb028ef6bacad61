// A server that makes a report for one client again and again, and gives short answers to others: on its event loop, or the reports
// on a thread of their own, or there are none. Work are the short answers.
// usage: node blocked_loop.js PORT loop|thread|none
const net = require('net');
const { Worker, isMainThread, parentPort } = require('worker_threads');

function makeReport() {
  let total = 0;
  for (let i = 0; i < 20e6; i++) {
    total = (total * 31 + i) | 0;
  }
  return total;
}

if (!isMainThread) {
  parentPort.on('message', () => parentPort.postMessage(makeReport()));
} else {
  const [port, where] = process.argv.slice(2);
  const worker = where === 'thread' ? new Worker(__filename) : null;
  let work = 0;
  const server = net.createServer({ noDelay: true }, (connection) => {
    connection.on('error', () => {});
    connection.on('data', (bytes) => {
      work++;
      connection.write(bytes);
    });
  });
  const begun = process.hrtime.bigint();
  process.on('SIGTERM', () => {
    process.stdout.write(`work ${work}\nns ${process.hrtime.bigint() - begun}\n`, () => process.exit(0));
  });
  server.listen({ port: Number(port), host: '127.0.0.1' }, () => console.log('begun'));
  if (worker) {
    worker.on('message', () => worker.postMessage('again'));
    worker.postMessage('first');
  } else if (where === 'loop') {
    (function again() {
      makeReport();
      setImmediate(again);
    })();
  }
}
