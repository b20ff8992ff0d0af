/** Spool positions stay below 2^53, so 14 hex digits always hold one. */
const POSITION_DIGITS = 14;

/**
 * The CloudEvents id of a record whose sender gave none: a UUID of RFC 9562 version 8 made of 66 bits of the spool id
 * and the 53 bits of the spool position. No two records of a spool share one, and the same record gets the same id
 * however often its delivery is repeated.
 *
 * `ssssssss-ssss-8sss-vspp-pppppppppppp`: s spool id, p position, v variant (`10`) and two bits of the spool id.
 * `spoolId` is 32 hex digits.
 */
export function eventIdOf(spoolId: string, position: number): string {
  const place = position.toString(16).padStart(POSITION_DIGITS, '0');
  const variant = (8 + (Number.parseInt(spoolId[15] ?? '0', 16) & 3)).toString(16);
  return `${spoolId.slice(0, 8)}-${spoolId.slice(8, 12)}-8${spoolId.slice(12, 15)}-${variant}${spoolId[16] ?? '0'}${place.slice(0, 2)}-${place.slice(2)}`;
}
