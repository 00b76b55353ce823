import { extend } from "./more.js";
import { Pushy } from "./pushy.js";

extend(Pushy);

export { Pushy, Pushy as default };
export { PushyError } from "./error.js";
