// What pushy.js, the classic script, leaves behind.
import { Pushy } from "./pushy.js";

Object.assign(globalThis, { Pushy });
