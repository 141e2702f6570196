// Ordered, exactly once: random operations over links that lose, repeat and reorder, against a reference.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { pairOf } from '../../src/ids.js';
import { Device, World } from '../harness/model.js';

const RUNS = Number(process.env.TERN_MODEL_RUNS ?? 300);

/** One operation of a random device; the weights make links live long enough to do something. */
function step(world: World, operation: number): void {
  const device = world.devices[world.pick(world.devices.length)] as Device;
  const others = world.devices.filter(({ user }) => user !== device.user);
  if (operation < 20) device.submit((others[world.pick(others.length)] as Device).user);
  else if (operation < 45) device.transmit();
  else if (operation < 75) device.receive();
  else if (operation < 83) world.now += world.pick(400);
  else if (operation < 90) device.tick();
  else if (operation < 93) device.confirm();
  else if (operation < 96) device.connection ? device.cut() : device.open();
  else if (operation < 97) device.reload();
  else if (operation < 98 && device.connection) world.lag(device.connection);
  else if (!device.connection) device.open();
}

/** The network heals: everything that is owed arrives. */
function settle(world: World): void {
  world.refusals = 0;
  for (const device of world.devices) if (!device.connection) device.open();
  for (let quiet = 0, rounds = 0; quiet < 40; rounds++) {
    let moved = false;
    for (const device of world.devices) {
      while (device.transmit()) moved = true;
      while (device.receive()) moved = true;
      device.tick();
    }
    world.now += 200;
    quiet = moved ? 0 : quiet + 1;
    if (rounds > 5_000) throw new Error('the clients do not come to rest');
  }
}

function check(world: World): void {
  for (const device of world.devices) {
    expect(device.faults, device.user).toEqual([]);
    for (const [conversation, log] of world.logs) {
      const mine = device.seen.get(conversation) ?? [];
      const members = world.devices
        .filter((one) => one.user !== device.user)
        .map((one) => pairOf(one.user, device.user));
      if (!members.includes(conversation)) continue;
      expect(mine.map(({ seq, tempId }) => [seq, tempId])).toEqual(
        log.map(({ seq, tempId }) => [seq, tempId]),
      );
    }
    // Every message of this device is in its log once, and in the order in which they were made.
    for (const conversation of new Set(device.sent.map((sent) => sent.conversation))) {
      const made = device.sent
        .filter((sent) => sent.conversation === conversation)
        .map(({ tempId }) => tempId);
      const ids = new Set(made);
      const logged = world
        .log(conversation)
        .flatMap(({ tempId }) => (tempId && ids.has(tempId) ? [tempId] : []));
      expect(logged).toEqual(made);
    }
    for (const { tempId } of device.sent) expect(device.resolved.has(tempId)).toBe(true);
  }
}

test('whatever the links do, every entry arrives once and in order, and every send commits once and in order', () => {
  const operations = fc.array(fc.integer({ min: 0, max: 99 }), { minLength: 50, maxLength: 400 });
  fc.assert(
    fc.property(fc.integer(), operations, fc.integer({ min: 0, max: 40 }), (seed, list, refusals) => {
      const world = new World(seed);
      world.refusals = refusals;
      for (const user of ['alice', 'bob', 'carol']) new Device(world, user);
      for (const operation of list) step(world, operation);
      settle(world);
      check(world);
    }),
    { numRuns: RUNS },
  );
});

test('after more than 500 missed entries one gap is told, then the newest 50', () => {
  const world = new World(1);
  const [alice, bob] = [new Device(world, 'alice'), new Device(world, 'bob')];
  alice.open();
  bob.open();
  settle(world);
  bob.cut();
  for (let count = 0; count < 501; count++) alice.submit('bob');
  while (alice.transmit() || alice.receive()) alice.tick();
  bob.open();
  settle(world);
  const seqs = bob.seen.get(pairOf('alice', 'bob'))?.map(({ seq }) => seq);
  expect(seqs).toEqual(Array.from({ length: 50 }, (_, at) => 452 + at));
  expect(bob.faults).toEqual([]);
});
