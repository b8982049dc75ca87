/** How a finding's box and its legend are drawn, so that colour isn't all that tells findings apart. */
const DASHES = ['', '8,4', '2,3', '10,3,2,3', '14,6', '4,4'];

/** Returns the dash pattern of a location, by its place in the report. */
export const dashOf = (index: number): string => DASHES[index % DASHES.length] ?? '';
