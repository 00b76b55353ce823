// The classic script pushy.js defines this global.
import { Pushy } from "./pushy.js";

Object.assign(globalThis, { Pushy });
