/** Files that are dropped, chosen or pasted; folders with all that is in them. */

/** Returns every file of a drop, those within folders included. */
export async function filesOf(transfer: DataTransfer): Promise<File[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter((one) => one != null);
  if (!entries.length) return [...transfer.files];
  const found: File[] = [];
  for (const entry of entries) await collect(entry, found);
  return found.filter((file) => !file.name.startsWith('.') && file.name !== 'DICOMDIR');
}

async function collect(entry: FileSystemEntry, found: File[]): Promise<void> {
  if (entry.isFile) {
    found.push(await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject)));
  } else {
    const reader = (entry as FileSystemDirectoryEntry).createReader();
    for (;;) {
      // A browser hands out a folder in parts, until an empty one.
      const part = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
      if (!part.length) return;
      for (const one of part) await collect(one, found);
    }
  }
}
