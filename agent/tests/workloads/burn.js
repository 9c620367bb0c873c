// Computes in one function, which another one calls.
function hotJs(rounds) {
  let sum = 0;
  for (let i = 0; i < rounds; i++) sum = (sum + i * 31) ^ (sum >> 3);
  return sum;
}

function middleJs(rounds) {
  return hotJs(rounds) + 1;
}

let sink = 0;
for (;;) sink += middleJs(100000);
