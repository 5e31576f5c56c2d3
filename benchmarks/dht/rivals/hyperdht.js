// hyperdht: `workload.py` said again for node. `node hyperdht.js PLAN`, with the plan as JSON; prints what child.py prints.

const { performance } = require('node:perf_hooks')

const PLAN = JSON.parse(process.argv[2])
const QUIET_MS = 100

process.stdin.resume()
process.stdin.on('end', () => process.exit(1))
process.stdin.on('error', () => process.exit(1))

let HyperDHT
try {
  HyperDHT = require('hyperdht')
} catch {
  say({ skipped: 'hyperdht is not installed (make bench-rivals)' })
  process.exit(0)
}

const nodes = []
const values = []
const alive = []
const random = generator(PLAN.seed)

main().then(
  (figures) => {
    say({ figures })
    process.exit(0)
  },
  (error) => {
    console.error(error)
    process.exit(1)
  }
)

async function main() {
  const figures = {}
  await join(figures)
  await put(figures)
  const began = performance.now()
  await get(figures)
  const phaseMs = performance.now() - began
  await getManyAtOnce(figures)
  figures.watch_ms = null
  figures['skipped: watch_ms'] = 'it cannot watch'
  await die(figures, phaseMs / 3)
  return figures
}

async function join(figures) {
  const began = performance.now()
  for (let i = 0; i < PLAN.nodes; i++) {
    const entry = i ? { host: '127.0.0.1', port: nodes[pick(i)].address().port } : null
    const node = new HyperDHT({
      bootstrap: entry ? [entry] : [],
      host: '127.0.0.1',
      port: 30000 + i,
      anyPort: true,
      ephemeral: false,
      firewalled: false
    })
    await node.fullyBootstrapped()
    nodes.push(node)
    alive.push(i)
    tell('join', i + 1, PLAN.nodes)
  }
  figures.join_ms = (performance.now() - began) / PLAN.nodes
}

async function put(figures) {
  const took = []
  for (let i = 0; i < PLAN.puts; i++) {
    const owner = alive[pick(alive.length)]
    const data = Buffer.alloc(PLAN.value_bytes)
    for (let at = 0; at < data.length; at++) data[at] = pick(256)
    const keyPair = HyperDHT.keyPair() // an item is found under its key: each value has its own
    const began = performance.now()
    await nodes[owner].mutablePut(keyPair, data)
    took.push(performance.now() - began)
    values.push({ owner, data, key: keyPair.publicKey })
    tell('put', i + 1, PLAN.puts)
  }
  figures.put_ms = percentile(took, 0.5)
}

async function get(figures) {
  const gets = planned(PLAN.gets)
  await atAPace('get', gets)
  figures.get_ms = percentile(gets.map(tookMs), 0.5)
  figures.get_p99_ms = percentile(gets.map(tookMs), 0.99)
  figures.found = found(gets)
}

async function getManyAtOnce(figures) {
  const gets = planned(PLAN.gets)
  const began = performance.now()
  const cpuBegan = process.cpuUsage()
  const waiting = gets.values()
  const worker = async () => {
    for (const one of waiting) await run(one)
  }
  await patiently(Array.from({ length: PLAN.outstanding }, worker))
  figures.gets_per_s = (gets.length * 1000) / (performance.now() - began)
  await sleep(QUIET_MS)
  const cpu = process.cpuUsage(cpuBegan)
  figures.cpu_ms = (cpu.user + cpu.system) / 1000 / gets.length
  figures.found_at_once = found(gets)
}

async function die(figures, pauseMs) {
  for (let left = Math.round(PLAN.dead_share * PLAN.nodes); left > 0; left--) {
    const [dead] = alive.splice(pick(alive.length), 1)
    await nodes[dead].destroy({ force: true })
  }
  await sleep(pauseMs)
  const gets = planned(PLAN.gets_after)
  await atAPace('get with 30 % dead', gets)
  figures.dead_found = found(gets)
  figures.dead_ms = percentile(gets.map(tookMs), 0.5)
  figures.dead_p99_ms = percentile(gets.map(tookMs), 0.99)
}

function planned(count) {
  return Array.from({ length: count }, () => {
    const value = values[pick(values.length)]
    const askers = alive.filter((node) => node !== value.owner)
    return { asker: askers[pick(askers.length)], value, found: false, tookMs: Infinity }
  })
}

async function run(one) {
  const began = performance.now()
  // The first good one, as with all who are quick: to wait for the latest takes seconds when nodes are dead.
  const got = await nodes[one.asker].mutableGet(one.value.key, { latest: false })
  one.tookMs = performance.now() - began
  one.found = got !== null && got.value.equals(one.value.data)
}

async function atAPace(phase, gets) {
  const running = []
  const began = performance.now()
  for (const [at, one] of gets.entries()) {
    const wait = began + at * PLAN.gap_s * 1000 - performance.now()
    await sleep(Math.max(0, wait))
    running.push(run(one))
    tell(phase, at + 1, gets.length)
  }
  await patiently(running)
}

async function patiently(running) {
  await Promise.race([Promise.all(running), sleep(PLAN.patience_s * 1000)])
}

function tookMs(one) {
  return one.tookMs
}

function found(gets) {
  return gets.filter((one) => one.found).length / gets.length
}

function percentile(numbers, share) {
  const ordered = [...numbers].sort((a, b) => a - b)
  const value = ordered[Math.min(ordered.length - 1, Math.floor(share * ordered.length))]
  return value === Infinity ? null : value
}

function pick(below) {
  return Math.floor(random() * below)
}

// mulberry32: the plan's seed decides, as it does for the others.
function generator(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

let toldAt = 0

function tell(phase, done, of) {
  if (performance.now() - toldAt < 250) return
  toldAt = performance.now()
  say([phase, done, of])
}

function say(what) {
  console.log(JSON.stringify(what))
}
