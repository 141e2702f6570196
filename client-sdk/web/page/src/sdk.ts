// The SDK as the page uses it: the file that the server offers at /sdk.js.
export * from '../../src/sdk.js';
