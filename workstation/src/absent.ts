/** Stands for a package that is imported by what is bundled, but never called here. */
export const create = (): never => {
  throw new Error('This package is not part of the workstation.');
};
export const registerComputeWorker = create;
