export { Pushy, Pushy as default } from "./pushy.js";
export { PushyError } from "./error.js";
