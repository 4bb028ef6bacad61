// A web service. `nap`: answers after so many milliseconds. `report`: makes a report for who asks for /report, on its event loop or on a
// thread of its own, and gives short answers to others.
// usage: node service.js PORT nap MILLISECONDS | report loop|thread
const http = require('http');
const { Worker, isMainThread, parentPort } = require('worker_threads');

function makeReport() {
  let total = 0;
  for (let i = 0; i < 40e6; i++) {
    total = (total * 31 + i) | 0;
  }
  return total;
}

if (!isMainThread) {
  parentPort.on('message', () => parentPort.postMessage(makeReport()));
} else {
  const [port, what, how] = process.argv.slice(2);
  const worker = how === 'thread' ? new Worker(__filename) : null;
  const waiting = [];
  if (worker) {
    worker.on('message', (total) => waiting.shift().end(String(total)));
  }
  const server = http.createServer((request, response) => {
    if (what === 'nap' && how !== '0') {
      setTimeout(() => response.end('awake'), Number(how));
    } else if (request.url !== '/report') {
      response.end('at once');
    } else if (worker) {
      waiting.push(response);
      worker.postMessage('one');
    } else {
      response.end(String(makeReport()));
    }
  });
  server.keepAliveTimeout = 3600e3;
  server.listen({ port: Number(port), host: '127.0.0.1' }, () => console.log('begun'));
}
