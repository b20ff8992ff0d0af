import { type Access, changed, created, KINDS, notFound, write } from './access.ts';

/** Which of the two keys of an endpoint. */
export type KeyType = 'primary' | 'secondary';

/** The keys of an endpoint as `WorkspaceKey.seal` wrote them. */
export type SealedKeys = Readonly<Record<KeyType, string>>;

/** The keys of endpoints, sealed. They go with their endpoint. */
export class EndpointKeyTable {
  readonly #access: Access;

  constructor(access: Access) {
    this.#access = access;
  }

  /** Undefined when the endpoint has none yet. */
  async find(endpoint: string): Promise<SealedKeys | undefined> {
    const row = await this.#access.database
      .selectFrom('endpoint_keys')
      .select(['primary_key', 'secondary_key'])
      .where('endpoint_name', '=', endpoint)
      .executeTakeFirst();
    return row && { primary: row.primary_key, secondary: row.secondary_key };
  }

  /** Gives the endpoint both keys, instead of those it has. Throws `not_found`. */
  async put(endpoint: string, keys: SealedKeys): Promise<void> {
    await write(this.#access, async (trx) => {
      const known = await trx.selectFrom('endpoints').select('name').where('name', '=', endpoint).executeTakeFirst();
      if (known === undefined) throw notFound(KINDS.endpoint, endpoint);
      await trx.deleteFrom('endpoint_keys').where('endpoint_name', '=', endpoint).execute();
      await trx
        .insertInto('endpoint_keys')
        .values({
          endpoint_name: endpoint,
          primary_key: keys.primary,
          secondary_key: keys.secondary,
          ...created(this.#access.clock),
        })
        .execute();
    });
  }

  /** Replaces one key; the other stays. Throws `not_found`. */
  async replace(endpoint: string, which: KeyType, sealed: string): Promise<void> {
    await write(this.#access, async (trx) => {
      const row = await trx
        .selectFrom('endpoint_keys')
        .select('revision')
        .where('endpoint_name', '=', endpoint)
        .executeTakeFirst();
      if (row === undefined) throw notFound(KINDS.endpoint, endpoint);
      await trx
        .updateTable('endpoint_keys')
        .set({
          ...(which === 'primary' ? { primary_key: sealed } : { secondary_key: sealed }),
          ...changed(this.#access.clock, row.revision),
        })
        .where('endpoint_name', '=', endpoint)
        .execute();
    });
  }
}
