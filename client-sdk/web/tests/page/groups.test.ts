// Groups on the page: made, joined, renamed, left, with up to a hundred members.
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { Stage, shown, until, write } from './stage.js';

let stage: Stage;
beforeAll(async () => {
  stage = await Stage.set();
});
afterAll(() => stage.strike());
afterEach(() => expect(stage.complaints).toEqual([]));

test('a group is made, renamed, grows, shrinks and is left, and everybody sees it', async () => {
  const alice = await stage.chatOf('alice');
  const bob = await stage.chatOf('bob');
  await alice.getByRole('button', { name: 'New group' }).click();
  await alice.getByRole('button', { name: 'Make the group' }).click();
  await alice.getByText('A group needs a name.').waitFor();
  await alice.locator('.dialog').getByLabel('Name').fill('Crew');
  await alice.locator('.dialog').getByLabel('Members').fill('bob, carol');
  await alice.getByRole('button', { name: 'Make the group' }).click();
  await write(alice, 'welcome');
  await bob.locator('.conversation-title').getByText('Crew').click();
  await shown(bob, 'welcome');
  await write(bob, 'thanks');
  await shown(alice, 'thanks');

  await alice.getByRole('button', { name: 'Details', exact: true }).click();
  await alice.locator('.panel').getByLabel('Name').fill('Night crew');
  await alice.getByRole('button', { name: 'Rename' }).click();
  await bob.locator('.room-title h2').getByText('Night crew').waitFor();
  await alice.getByLabel('Add', { exact: true }).fill('dora');
  await alice.getByRole('button', { name: 'Add', exact: true }).click();
  await bob.locator('.event').getByText('Alice added dora').waitFor();
  await alice.getByRole('button', { name: 'Remove carol' }).click();
  await bob.locator('.event').getByText('Alice removed carol').waitFor();
  await alice.getByLabel('Role of Bob').selectOption('admin');
  await bob.locator('.event').getByText('You are now an admin').waitFor();

  await bob.getByRole('button', { name: 'Details', exact: true }).click();
  await bob.getByRole('button', { name: 'Leave the group' }).click();
  await bob.getByRole('button', { name: 'Leave', exact: true }).click();
  await bob.getByText('You are no longer a member.').waitFor();
  expect(await bob.locator('#compose').count()).toBe(0);
  await alice.locator('.event').getByText('Bob left').waitFor();
  await alice.context().close();
  await bob.context().close();
});

test('a member who may not do something is not offered it', async () => {
  const owner = stage.client('owen');
  const { conversation } = await owner.createGroup('Strict', ['pia']);
  const pia = await stage.chatOf('pia');
  await pia.locator('.conversation-title').getByText('Strict').click();
  await pia.getByRole('button', { name: 'Details', exact: true }).click();
  await pia.getByRole('button', { name: 'Leave the group' }).waitFor();
  expect(await pia.getByRole('button', { name: 'Rename' }).count()).toBe(0);
  expect(await pia.getByRole('button', { name: /^Remove/ }).count()).toBe(0);
  await owner.removeMembers(conversation, ['pia']);
  await pia.getByText('You are no longer a member.').waitFor();
  await pia.context().close();
});

test('a hundred members stand in the list', async () => {
  const owner = stage.client('quinn');
  await owner.createGroup('Everybody', [
    'rosa',
    ...Array.from({ length: 98 }, (_, at) => `member ${at + 1}`),
  ]);
  const rosa = await stage.chatOf('rosa');
  await rosa.locator('.conversation-title').getByText('Everybody').click();
  await rosa.getByRole('button', { name: 'Details', exact: true }).click();
  await until('all are there', async () => (await rosa.locator('.member').count()) === 100);
  await rosa.locator('.room-sub').getByText('100 members').waitFor();
  await rosa.context().close();
});
