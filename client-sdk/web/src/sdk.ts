// Everything in one file, for pages that have no bundler.
export * from './index.js';
export * from './persist/index.js';
