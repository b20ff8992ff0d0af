import { crc32 } from 'node:zlib';
import type { AzureCall, AzureContainer } from './azure-client.ts';
import { forEachBounded } from './streams.ts';

/** Largest block sent in one request, bytes. */
export const BLOCK_BYTES = 4 * 1024 * 1024;
/** Blocks of one object on their way at once. */
export const PARALLEL_BLOCKS = 4;

/** What a block id of ours says. */
export interface BlockName {
  /** Where the block begins in the object, bytes. At most 2^48 - 1. */
  readonly offset: number;
  /** Its length, bytes. At most 2^32 - 1. */
  readonly bytes: number;
  /** CRC-32 (ISO 3309, as zlib's) of its bytes. */
  readonly crc: number;
}

/** Length of the text of every block id: the service wants all ids of an object to be equally long. */
const ID_LENGTH = 20;

/**
 * The id of a block: base64 of offset (6 bytes), length (4) and CRC-32 (4), big-endian, and a zero byte that fills up
 * to 15, so that base64 needs no padding. Derived from place and content alone, so that the same block sent twice has
 * the same id, and two blocks with one id have the same bytes.
 */
export function blockId(name: BlockName): string {
  const bytes = Buffer.alloc(15);
  bytes.writeUIntBE(name.offset, 0, 6);
  bytes.writeUInt32BE(name.bytes, 6);
  bytes.writeUInt32BE(name.crc, 10);
  return bytes.toString('base64');
}

/** Reads an id that `blockId` made; undefined for the ids of other programs. */
export function parseBlockId(id: string): BlockName | undefined {
  const bytes = Buffer.from(id, 'base64');
  if (id.length !== ID_LENGTH || bytes.length !== 15 || bytes[14] !== 0) return undefined;
  return { offset: bytes.readUIntBE(0, 6), bytes: bytes.readUInt32BE(6), crc: bytes.readUInt32BE(10) };
}

/** A block with its bytes. */
export interface Block {
  readonly id: string;
  readonly data: Uint8Array;
}

/** Names the block of `data` that begins at `offset`. */
export function nameBlock(offset: number, data: Uint8Array): Block {
  return { id: blockId({ offset, bytes: data.length, crc: crc32(data) }), data };
}

/** Cuts the bytes to append at `offset` into blocks. The same bytes at the same place always give the same blocks. */
export function cutBlocks(chunk: Uint8Array, offset: number): Block[] {
  const blocks: Block[] = [];
  for (let from = 0; from < chunk.length; from += BLOCK_BYTES) {
    blocks.push(nameBlock(offset + from, chunk.subarray(from, from + BLOCK_BYTES)));
  }
  return blocks;
}

/** Sends blocks, a few at once. Nothing of them is visible before their ids are committed. */
export async function stageBlocks(
  container: AzureContainer,
  what: AzureCall,
  blocks: AsyncIterable<Block & { release?: () => void }> | Iterable<Block & { release?: () => void }>,
): Promise<void> {
  const blob = container.blob(what.key);
  await forEachBounded(blocks, PARALLEL_BLOCKS, async ({ id, data, release }) => {
    await container.call({ ...what, bytes: data.length }, (abortSignal) =>
      blob.stageBlock(id, data, data.length, { abortSignal }),
    );
    release?.();
  });
}
