// HTTPS by Node's own OpenSSL (inside its executable).
//
//   tls_node.js serve PORT CERTIFICATE KEY FOLDER   answers as tls_server.py does
//   tls_node.js fetch|https HOST PORT               asks as tls_client.py does; HOST is always 127.0.0.1, and
//                                                   NODE_EXTRA_CA_CERTS names the CA
'use strict';

const crypto = require('crypto');
const dns = require('dns');
const fs = require('fs');
const https = require('https');
const path = require('path');
const readline = require('readline');

const [role, ...words] = process.argv.slice(2);

dns.lookup = (host, options, done) => {
  const call = done || options;
  if (options && options.all) return call(null, [{ address: '127.0.0.1', family: 4 }]);
  return call(null, '127.0.0.1', 4);
};

function serve(port, certificate, key, folder) {
  const answer = (request, response) => {
    const pieces = [];
    request.on('data', (piece) => pieces.push(piece));
    request.on('end', () => {
      let [status, body] = [200, Buffer.concat(pieces)];
      if (request.method === 'GET') {
        try {
          body = fs.readFileSync(path.join(folder, path.basename(request.url.split('?')[0])));
        } catch {
          [status, body] = [404, Buffer.from('Nothing here.')];
        }
      }
      response.writeHead(status, {
        'Content-Type': 'application/octet-stream',
        'Content-Length': body.length,
        'X-Pid': process.pid,
      });
      response.end(body);
    });
  };
  const options = { cert: fs.readFileSync(certificate), key: fs.readFileSync(key), ALPNProtocols: ['http/1.1'] };
  https.createServer(options, answer).listen(Number(port), '127.0.0.1');
}

const summary = (status, body) => `${status} ${body.length} ${crypto.createHash('sha1').update(body).digest('hex')}`;

async function byFetch(url, method, body) {
  const answer = await fetch(url, { method, body });
  return summary(answer.status, Buffer.from(await answer.arrayBuffer()));
}

const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });

function byHttps(url, method, body) {
  return new Promise((done, failed) => {
    const request = https.request(url, { method, agent }, (answer) => {
      const pieces = [];
      answer.on('data', (piece) => pieces.push(piece));
      answer.on('end', () => done(summary(answer.statusCode, Buffer.concat(pieces))));
      answer.on('error', failed);
    });
    request.on('error', failed);
    if (body) request.setHeader('Content-Length', body.length);
    request.end(body);
  });
}

async function ask(each, host, port) {
  console.log('ready');
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [method, target, file] = line.split(' ');
    console.log(await each(`https://${host}:${port}${target}`, method, file && fs.readFileSync(file)));
  }
}

if (role === 'serve') serve(...words);
else ask(role === 'fetch' ? byFetch : byHttps, ...words);
